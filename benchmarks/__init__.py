"""What the service costs, measured beside what PostgreSQL and Flask cost. See README.md."""
