-- Some registers of a store as they were at an instant, with the revisions that they had been
-- served by then.
SELECT terminal.terminal_id, terminal.supports_offline,
       coalesce(terminal.retired_at <= %(at)s, false),
       ARRAY (SELECT served.revision
                FROM parameter_acknowledgements AS served
               WHERE served.store_id = terminal.store_id
                 AND served.terminal_id = terminal.terminal_id
                 AND served.acknowledged_at <= %(at)s)
  FROM terminals AS terminal
 WHERE terminal.store_id = %(store_id)s
   AND terminal.terminal_id = ANY (%(terminal_ids)s::text[])
