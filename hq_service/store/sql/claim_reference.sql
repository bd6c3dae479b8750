-- Claim a reference of an administrator's; a second claim at the same moment waits for the first.
INSERT INTO issue_references (reference, issued_at, issued_by)
VALUES (%(reference)s, %(now)s, %(actor)s)
    ON CONFLICT DO NOTHING
