"""`toploc gateway`: one address for an application, behind which every provider's answers are checked.

Where to start reading:
- `config.py`: what one YAML says of upstreams and of what is done with their answers.
- `relay.py`: the way of a request, from one upstream to the next.
- `delivery.py`: what stands between an upstream's reply and the application; `auditor.py`: what is found of it.
- `trust.py`: which upstreams are asked, and which are in quarantine.
- `stores/`: answers with their evidence and reports, and trust, in SQLite or PostgreSQL.
- `audits.py`: what waits in the store is checked there.

Importing this needs neither torch nor numpy.
"""
