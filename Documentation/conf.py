# SPDX-License-Identifier: GPL-2.0
"""How Sphinx makes HTML of these pages: `make docs`, which sets LINUX_SRC.

The pages of the ABI are what the kernel's own kernel-doc makes of the comments in the
headers.
"""

import os
import sys

repo = os.path.abspath("..")
linux = os.environ["LINUX_SRC"]
# Where the kernel's extension finds the rest of kernel-doc.
os.environ["srctree"] = linux
sys.path.insert(0, os.path.join(linux, "Documentation/sphinx"))

project = "Rust Live Update Orchestrator"
copyright = "the developers of the Rust Live Update Orchestrator"
extensions = ["kerneldoc"]
kerneldoc_srctree = repo

root_doc = "index"
exclude_patterns = ["_build"]
# A literal block of the shell, of C or of the kernel log: none in particular.
highlight_language = "none"
primary_domain = "c"
nitpicky = True
# Of the kernel, which has pages of its own.
nitpick_ignore = [("c:type", "file")]

html_theme = "alabaster"
html_theme_options = {
    "description": "Keeps file descriptors over a kexec",
    "fixed_sidebar": True,
    "page_width": "72em",
}
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
