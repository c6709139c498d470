"""Checks: what decides in place of equality with the reference, where answers are many or have to be run.

A check is one of the built-in ones (:mod:`.names`), whose code is :mod:`.gym`, or a function of the user's, which
:mod:`.function` calls under the guards of :mod:`.guard`. Both are asked through :mod:`.asking`, in killable workers.
"""
