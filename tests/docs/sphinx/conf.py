"""How Sphinx makes the site; see tests/docs/site."""

import pkgutil
import zlib
from pathlib import Path

import ansible.modules

project = "ggen.gvisor"
copyright = "the ggen.gvisor authors"
html_title = "ggen.gvisor"
extensions = ["myst_parser", "sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
html_theme = "furo"
html_copy_source = False
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
default_role = "any"
# Headings may be linked to from other pages.
myst_heading_anchors = 3
nitpicky = True
# The decisions are listed on their own index page.
suppress_warnings = ["toc.not_included"]

# What the pages name of Ansible's own documentation, and where it is: there may be no network to look it up while the site is made.
ANSIBLE = "https://docs.ansible.com/ansible/latest/"
CONFIG = "reference_appendices/config.html"
LABELS = {
    "action_plugins": "plugins/action.html#action-plugins",
    "ansible_configuration_settings": f"{CONFIG}#ansible-configuration-settings",
    "common_return_values": "reference_appendices/common_return_values.html#common-return-values",
}
PAGE = "ansible_collections.ansible.builtin"
VARIABLES = ("ANSIBLE_CACHE_PLUGIN", "ANSIBLE_CACHE_PLUGIN_CONNECTION", "ANSIBLE_CACHE_PLUGIN_PREFIX", "ANSIBLE_CACHE_PLUGIN_TIMEOUT")


def inventory() -> str:
    """Write the table in Sphinx's own format and return its path."""
    lines = [f"{name} std:label -1 {place} -" for name, place in LABELS.items()]
    modules = [module.name for module in pkgutil.iter_modules(ansible.modules.__path__)]
    lines += [f"{PAGE}.{name}_module std:label -1 collections/ansible/builtin/{name}_module.html {name}" for name in modules]
    lines += [f"{name} std:envvar 1 {CONFIG}#envvar-{name} -" for name in VARIABLES]
    head = "# Sphinx inventory version 2\n# Project: Ansible\n# Version:\n# The remainder of this file is compressed using zlib.\n"
    path = Path(__file__).resolve().parents[3] / ".artifacts/docs-site/ansible.inv"
    path.write_bytes(head.encode() + zlib.compress("\n".join([*lines, ""]).encode()))
    return str(path)


intersphinx_mapping = {"ansible": (ANSIBLE, inventory())}
