"""What is in the database beside tables and indexes: a view, and rows that follow from others."""

from __future__ import annotations

from typing import Any

ACCOUNTING = """
CREATE VIEW IF NOT EXISTS accounting (sha256, state, runs) AS
SELECT c.sha256, c.state, COALESCE((
    SELECT MAX(n) FROM (
        SELECT COUNT(DISTINCT a.id) AS n
        FROM job_input i JOIN attempt a ON a.job_id = i.job_id AND a.outcome = 'done'
        WHERE i.frame_id = c.frame_id GROUP BY i.job_id)), 0)
FROM content c
"""

# Of frames that a release has written, or mended, which does not know the table: 0.1 s for 100,000 frames.
OBSERVED = """INSERT OR REPLACE INTO observed (frame_id, object, ut) SELECT id, shown, ut FROM (
    SELECT f.id, f.ut, o.frame_id AS known, o.object AS was, o.ut AS at, CASE WHEN json_valid(f.descriptors)
        THEN COALESCE(CAST(json_extract(f.descriptors, '$.object') AS TEXT), '') ELSE '' END AS shown
    FROM frame f LEFT JOIN observed o ON o.frame_id = f.id)
    WHERE known IS NULL OR was IS NOT shown OR at IS NOT ut"""


def make(db: Any) -> None:
    """Make what is not there yet. Inside a transaction. db : of peewee"""
    db.execute_sql(ACCOUNTING)
    db.execute_sql(OBSERVED)
