#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: report_file
short_description: Write a host's report on the controller
version_added: 1.0.0
description:
  - Writes a document as JSON on the controller, with the host's name and the time in front. Nothing runs on the host, and no module on the
    controller either, so that a fleet's reports cost next to nothing.
  - Makes the folder where it is missing. The file is replaced as a whole.
  - Returns the report with what it holds, so that what is registered is the report.
  - A report tells of a run and of no state, so that writing it is never a change, and check mode writes it too.
options:
  path:
    description: The file on the controller.
    type: path
    required: true
  report:
    description: What to write.
    type: dict
    required: true
attributes:
  check_mode:
    description: The report tells what was observed, and is written in check mode too.
    support: none
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    support: none
    description: The file holds the time.
  platform:
    platforms: posix
    support: full
    description: The systems that the module runs on.
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Write the host's report
  ggen.gvisor.report_file:
    path: "reports/{{ inventory_hostname }}.json"
    report:
      healthy: "{{ faults is falsy }}"
      faults: "{{ faults }}"
  register: report

- name: Say what is wrong
  ansible.builtin.debug:
    msg: "{{ report.faults | join('; ') }}; more in {{ report.path }}"
  when: not report.healthy
"""

RETURN = r"""
path:
  description: The file's absolute path.
  returned: always
  type: str
  sample: /home/me/ggen.gvisor/reports/web1.json
"""
