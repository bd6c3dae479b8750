-- Write back what a case has come to.
UPDATE cases
   SET outcome = %(outcome)s,
       codes = %(codes)s,
       shortfall_minor = %(shortfall_minor)s,
       recovered_minor = %(recovered_minor)s,
       resolution = %(resolution)s,
       resolved_at = %(resolved_at)s,
       resolved_by = %(resolved_by)s,
       resolution_reason = %(resolution_reason)s
 WHERE case_id = %(case_id)s
