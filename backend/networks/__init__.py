# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's networks, written so that the released weights load strictly.

The only room but engines/neural that needs torch.
"""
