# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A path that is not there, whatever folders a machine has. All workers of a run find the same, as it is part of tests' names."""

from __future__ import annotations

import itertools
import os

MISSING = next(path for number in itertools.count() if not os.path.lexists(path := f"/missing-{number}"))
