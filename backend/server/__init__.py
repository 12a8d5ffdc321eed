# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend as a local service: WebSocket, JSON-RPC 2.0, jobs. PROTOCOL.md is the contract."""
