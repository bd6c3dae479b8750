-- Wait until every lock that is being given is committed, and let no other be listed until this
-- transaction ends; it is short, and retiring something is rare. A lock of the table, as that costs
-- the locks themselves nothing: one on the register's row would be written with every lock of a
-- card, and an advisory one would not hold on every node of a cluster.
LOCK TABLE live_locks IN SHARE MODE
