"""The till's half: what a register does, over HTTP and nothing else.

It knows the service only by its answers, so it imports the domain's words and none of the layers
that stand behind them. `demo` plays the stories of the documents with two such tills.
"""
