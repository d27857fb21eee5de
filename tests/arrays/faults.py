"""What goes wrong on demand with the calls of a server of the tests (tests/arrays, tests/ec2, tests/openstack). A fault, as POST /control tells it:

  {"how": HOW, "action": NAME, "about": TEXT, "skip": N, "times": N, "seconds": S, ...}

action: the server's name of what is asked for, or any when left out; about: a text in the request, or any; skip: so many calls go well
first; times: so many do not (1). how:

  error     it is refused (more keys say with what: the server's)
  drop      nothing is done, the connection ends
  hang      nothing is done, and there is no answer: the connection ends after `seconds`
  stall     it is done, the same otherwise
  lost      it is done, the answer does not arrive
  late      it is done after `seconds`, answered then
  twice     it is done two times, the second answer arrives
  garbage   it is done, a page of HTML arrives (not from tests/ec2)
  hold      it stands still, `when`: "before" or "after" it is done, until POST /control says {"let_go": "on" or "end"}: it goes on, or its
            connection ends; whether anybody is left to hear it or not ("of": only those of that address). GET /control has
            "held": [{action, when, peer}]
"""

import threading
import time

HOLD_MAX_S = 300


class Faults:
    """Thread-safe, but for what is said at the methods."""

    def __init__(self):
        self.all, self._held = [], []

    def set(self, faults):
        """With the lock of the server held."""
        self.all = [dict(f) for f in faults]

    def take(self, action, text=""):
        """What is wrong with this call; {"how": "none"} is nothing. With the lock of the server held."""
        for f in self.all:
            if f.get("action", action) != action or f.get("about", "") not in text or f.setdefault("times", 1) <= 0:
                continue
            if f.get("skip", 0) > 0:
                f["skip"] -= 1
                continue
            f["times"] -= 1
            return {**f, "called": action}
        return {"how": "none"}

    def held(self):
        return [what for what, _ in self._held]

    def let_go(self, verdict, peer=None):
        for what, event in list(self._held):
            if peer in (None, what["peer"]):
                what["verdict"] = verdict
                event.set()

    def _hold(self, fault, when, peer):
        """Is it to go on?"""
        entry = {"action": fault["called"], "when": when, "peer": peer}, threading.Event()
        self._held.append(entry)
        entry[1].wait(HOLD_MAX_S)
        self._held.remove(entry)
        return entry[0].get("verdict") == "on"

    def before(self, fault, peer):
        """Blocks as long as the call is to wait before it is done. False: it is not to be done, the connection ends."""
        how = fault["how"]
        if how in ("late", "hang"):
            time.sleep(fault["seconds"])
        if how == "hold" and fault["when"] == "before":
            return self._hold(fault, "before", peer)
        return how not in ("drop", "hang")

    def after(self, fault, peer):
        """The same after it was done. False: there is no answer, the connection ends."""
        how = fault["how"]
        if how == "stall":
            time.sleep(fault["seconds"])
        if how == "hold" and fault["when"] == "after":
            return self._hold(fault, "after", peer)
        return how not in ("lost", "stall")
