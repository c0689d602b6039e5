# Tables with many rows, indexes, sorting, text, and a check of the file.
if [ "$1" = quick ]; then rows=150000; else rows=1000000; fi
sqlite3 data.db <<END
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price REAL, body BLOB);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $rows)
INSERT INTO items SELECT n, printf('item-%d-%s', n * 7919 % $rows, substr('abcdefghijklmnopqrstuvwxyz', n % 20, n % 7)), n % 97, n * 1.25, zeroblob(n % 60) FROM numbers;
SELECT count(*), sum(price), sum(length(body)) FROM items;
CREATE INDEX by_name ON items (name);
CREATE INDEX by_kind ON items (kind, price DESC);
SELECT kind, count(*), max(name) FROM items GROUP BY kind ORDER BY 2 DESC, 1 LIMIT 5;
SELECT name FROM items WHERE name LIKE 'item-12%' ORDER BY name LIMIT 5;
SELECT count(DISTINCT substr(name, 1, 8)) FROM items;
SELECT length(group_concat(name)) FROM items WHERE kind < 10;
UPDATE items SET name = upper(name) || '!' WHERE kind % 3 = 0;
DELETE FROM items WHERE kind = 50;
SELECT count(*), min(name), max(name) FROM items;
VACUUM;
PRAGMA integrity_check;
END
sha256sum data.db
