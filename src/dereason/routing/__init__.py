"""Which problem goes to which set. See :mod:`dereason.routing.policies`."""
