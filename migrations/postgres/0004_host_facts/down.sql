DROP TABLE ocfs2;
DROP TABLE storages;
DROP TABLE sriov;
DROP TABLE dns;
DROP TABLE networks;
