"""Signing in."""

import asyncio
import hmac

from fastapi import APIRouter, HTTPException

from web_service.accounts import PASSWORDS, hashed
from web_service.models import Credentials, Session

router = APIRouter()


@router.post("/sessions")
async def sign_in(given: Credentials) -> Session:
    """Compare what is given with what is known; the hash lets go of the interpreter."""
    known = PASSWORDS.get(given.user, b"")
    found = await asyncio.to_thread(hashed, given.password)
    if not hmac.compare_digest(found, known):
        raise HTTPException(401, "This user and this password do not belong together.")
    return Session(user=given.user)
