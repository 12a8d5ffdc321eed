# SPDX-License-Identifier: GPL-3.0-or-later
"""The weights of the neural engine: what was released, where it lies here, whether it is whole, and the way
to fetch it. Nothing is fetched unless somebody asks for it.

`find(options)` answers whether a job can have the neural engine.
"""

from __future__ import annotations

from backend.models.availability import FoundModels, NotAvailable, find
from backend.models.catalogue import FILES, REPOSITORY, ModelFile
from backend.models.download import Item, Plan, Transferred, carry_out, make_plan
from backend.models.store import locate_all, models_folder
from backend.models.verification import Checked, verify
from backend.models.weight_files import check_structure, key_in_part

__all__ = [
    "FILES",
    "REPOSITORY",
    "Checked",
    "FoundModels",
    "Item",
    "ModelFile",
    "NotAvailable",
    "Plan",
    "Transferred",
    "carry_out",
    "check_structure",
    "find",
    "key_in_part",
    "locate_all",
    "make_plan",
    "models_folder",
    "verify",
]
