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

# Of frames that a release has written which does not know the table.
OBSERVED = """INSERT INTO observed (frame_id, object, ut)
    SELECT id, CASE WHEN json_valid(descriptors)
        THEN COALESCE(CAST(json_extract(descriptors, '$.object') AS TEXT), '') ELSE '' END, ut
    FROM frame WHERE id > (SELECT COALESCE(MAX(frame_id), 0) FROM observed)"""


def make(db: Any) -> None:
    """Make what is not there yet. Inside a transaction. db : of peewee"""
    db.execute_sql(ACCOUNTING)
    db.execute_sql(OBSERVED)
