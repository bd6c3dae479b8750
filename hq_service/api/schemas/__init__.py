"""The shapes of requests and answers. Meaning is checked in the domain."""
