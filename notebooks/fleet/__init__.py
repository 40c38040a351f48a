"""What notebook 08 deploys: instances of a service, and the servers that they work on.

Open `instance.py`: it is plain asyncpg. `deployment.py` starts several of them, `servers.py` a
small PostgreSQL and a PgBouncer, and `keepers.py` keeps these until the notebook is gone.
"""

from fleet.deployment import Outcome, run

__all__ = ["Outcome", "run"]
