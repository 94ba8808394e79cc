-- Offsets that no message has and none will get: an unclean stop leaves a gap, so that an offset that
-- somebody has seen is never given to another message. What is not in a gap can be counted by its ends.
CREATE TABLE gaps (
    first INTEGER PRIMARY KEY,
    last  INTEGER NOT NULL
) STRICT;

DROP VIEW lag;
CREATE VIEW lag AS
SELECT client_id,
       cursor,
       high_watermark,
       max(0, high_watermark - passed - (
           SELECT ifnull(sum(min(g.last, high_watermark) - max(g.first, passed + 1) + 1), 0)
           FROM gaps g
           WHERE g.last > passed AND g.first <= high_watermark
       )) AS lag
FROM (
    SELECT c.client_id,
           c.offset                                              AS cursor,
           (SELECT ifnull(max(offset), 0) FROM messages)         AS high_watermark,
           max(c.offset, (SELECT start - 1 FROM log))            AS passed
    FROM cursors c
);
