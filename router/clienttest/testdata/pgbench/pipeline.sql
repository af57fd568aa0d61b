\set i random(1, 3)
\startpipeline
SELECT s FROM t WHERE id = :i;
SELECT :i + 1;
SELECT count(*) FROM t;
\endpipeline
