"""``/v1/collections``: pictures that belong together."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from chashka.app.guard.access import Who
from chashka.app.routes.asking import needs
from chashka.app.routes.errors import BODY, documented
from chashka.app.routes.examples import example
from chashka.app.routes.shapes import CollectionList, CollectionNamed, CollectionShape
from chashka.app.service import ConflictError, NotFoundError, Service
from chashka.app.store.collections import Collection


def router(service: Service) -> APIRouter:
    """The routes of collections."""
    routes = APIRouter(prefix="/v1/collections", tags=["pictures"])
    reads, makes = Depends(needs(service, "read")), Depends(needs(service, "generate"))
    kept = service.collections

    def known(who: Who, id: str) -> Collection:
        found = kept.get(id)
        if found is None or not who.sees(found.owner):
            raise NotFoundError("there is no such collection")
        return found

    def free(owner: str, name: str, id: str = "") -> None:
        other = kept.named(owner, name)
        if other is not None and other.id != id:
            raise ConflictError("name: there is a collection of this name already; choose another one")

    @routes.get("", summary="List collections", responses=documented(), openapi_extra=example("collections"))
    def list_collections(who: Who = reads) -> CollectionList:
        """All of one's own, by name."""
        found = kept.list(None if who.may("admin") else who.id)
        return CollectionList(data=[_shape(one) for one in found])

    @routes.post(
        "",
        status_code=201,
        summary="Make a collection",
        responses=documented(409, *BODY),
        openapi_extra=example("collect"),
    )
    def make_collection(said: CollectionNamed, who: Who = makes) -> CollectionShape:
        """Make an empty one; PATCH of a picture puts it in. A name can be used once."""
        free(who.id, said.name)
        return _shape(kept.create(who.id, said.name))

    @routes.patch(
        "/{id}", summary="Rename a collection", responses=documented(404, 409, *BODY), openapi_extra=example("rename")
    )
    def rename_collection(id: str, said: CollectionNamed, who: Who = makes) -> CollectionShape:
        """Give it another name."""
        one = known(who, id)
        free(one.owner, said.name, id)
        return _shape(kept.rename(one.id, said.name) or one)

    @routes.delete(
        "/{id}",
        status_code=204,
        response_class=Response,
        summary="Delete a collection",
        responses=documented(404, *BODY),
        openapi_extra=example("uncollect"),
    )
    def delete_collection(id: str, who: Who = makes) -> Response:
        """The pictures in it stay."""
        kept.delete(known(who, id).id)
        return Response(status_code=204)

    return routes


def _shape(one: Collection) -> CollectionShape:
    return CollectionShape(id=one.id, name=one.name, created=one.created, pictures=one.count)
