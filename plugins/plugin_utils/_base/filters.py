# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the collection's filters fail: with a sentence, as Ansible wants it."""

from __future__ import annotations

import functools
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, sentence
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible

Filter = Callable[..., Any]


def filters(**functions: Filter) -> dict[str, Filter]:
    """Return the filters by name. What a function raises as GvisorError, OSError or ValueError becomes an AnsibleFilterError with its sentence."""
    return {name: _mapped(function) for name, function in functions.items()}


def _mapped(function: Filter) -> Filter:
    @functools.wraps(function)
    def call(*values: Any, **options: Any) -> Any:
        try:
            return function(*values, **options)
        except GvisorError as error:
            raise AnsibleFilterError(visible(error.message)) from error
        except OSError as error:
            raise AnsibleFilterError(visible(sentence(error))) from None  # Ansible would repeat a cause that says it in other words
        except ValueError as error:
            raise AnsibleFilterError(visible(error)) from error

    return call
