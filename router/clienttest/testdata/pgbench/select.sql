\set i random(1, 3)
SELECT s FROM t WHERE id = :i;
