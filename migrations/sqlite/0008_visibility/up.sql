-- Which VMs the account sees, a rule on each line: "prefix web-". NULL: all of them; no rule: none.
ALTER TABLE users ADD COLUMN sees TEXT;

-- The account that started it; NULL: none did.
ALTER TABLE tasks ADD COLUMN account TEXT;
