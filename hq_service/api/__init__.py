"""HTTP: parse, call one operation, render."""
