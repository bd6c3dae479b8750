"""The till's half: what a register does, over HTTP and nothing else.

It knows the service only by its answers, so it imports the domain's words and none of the layers
that stand behind them. `terminal` is the till: its sales are in `sale`, its file in `store`, when
it goes offline in `link` and `health`, what it may do there in `offline_rules`. `sync` delivers
what it has pending, `sync_job` does that for tills that do not run. `demo` plays the stories of the
documents with two tills: `scene` has who takes part, `steps` what can happen.
"""
