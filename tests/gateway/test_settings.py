"""Options of a gateway that do not go together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from albireo.models import TINY
from gateway.settings import MAX_CELLS, GatewaySettings

URL = "redis://redis:6379/0"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "model: give the directory"),
        ({"model": TINY, "cells": "redis://redis"}, "cells: each Redis once"),
        ({"model": TINY, "cells": "redis://b redis://B:6379/0"}, "cells: each Redis once"),
        (
            {"model": TINY, "cells": " ".join(f"redis://r{n}" for n in range(MAX_CELLS))},
            f"at most {MAX_CELLS}",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        GatewaySettings.model_validate({"redis_url": URL, **options})


def test_the_first_cell_is_that_of_the_redis_url() -> None:
    settings = GatewaySettings.model_validate(
        {"redis_url": URL, "models": TINY, "cells": "redis://b redis://c"}
    )
    assert settings.cell_addresses == [URL, "redis://b", "redis://c"]
