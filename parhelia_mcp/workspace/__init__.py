"""Move the user's exact workspace into a session, and the session's work back as a ref.

In a session HEAD is the user's own HEAD, on the same branch, with the same staged, unstaged and untracked changes, so
that "review what I have not committed" means what it says. Ignored files (`.env`, build output) stay home. Submodules
and nested repositories travel as plain files without their history. A rebase or merge in progress travels as the files
it left. `filter=` drivers (LFS) never run: such files travel as the index has them (pointers), or raw where they are
modified. Line ends are what the repository's rules make of them, in the session and when they come back. A changed
submodule comes back as plain files in the last commit; `apply` refuses to put those into the submodule.

What lands, oldest first:

    the user's HEAD <- "your uncommitted work" (only where there was some and the agent made no commit of its own)
                    <- the agent's commits, unchanged <- one last commit of what the agent left uncommitted

History travels whole up to `pack.WHOLE_HISTORY` bytes. Above it the session is a shallow repository that ends at the
user's HEAD: commits keep their real ids, so the way back is the same. What was sent is kept per repository, so the
next session gets only what is new. A directory without git travels as an archive and comes back as one.
"""

from parhelia_mcp.workspace.apply import Applied, apply
from parhelia_mcp.workspace.collect import Collected, collect
from parhelia_mcp.workspace.land import Landed, land
from parhelia_mcp.workspace.pack import Packed, pack
from parhelia_mcp.workspace.unpack import unpack

__all__ = ["Applied", "Collected", "Landed", "Packed", "apply", "collect", "land", "pack", "unpack"]
