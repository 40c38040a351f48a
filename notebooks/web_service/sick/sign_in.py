"""Signing in."""

import hmac

from fastapi import APIRouter, HTTPException

from web_service.accounts import PASSWORDS, hashed
from web_service.models import Credentials, Session

router = APIRouter()


@router.post("/sessions")
async def sign_in(given: Credentials) -> Session:
    """Compare what is given with what is known."""
    known = PASSWORDS.get(given.user, b"")
    if not hmac.compare_digest(hashed(given.password), known):
        raise HTTPException(401, "This user and this password do not belong together.")
    return Session(user=given.user)
