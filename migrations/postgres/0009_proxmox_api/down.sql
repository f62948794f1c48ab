DROP TABLE deletions;
DROP TABLE tenancies;
DROP TABLE tenants;
DROP TABLE promised_numbers;
DROP TABLE numbers;
