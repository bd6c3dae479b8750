-- An API key by its id, with whatever says whether it lets somebody in.
SELECT secret_sha256, role, store_id, terminal_id, expires_at, revoked_at
  FROM api_keys
 WHERE key_id = $1
