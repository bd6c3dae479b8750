-- Plan the statements of this transaction for whatever keys they are given: by index, key by key.
-- Planned for one chunk's thousand keys, they read whole tables as long as those are small.
SET LOCAL plan_cache_mode = force_generic_plan
