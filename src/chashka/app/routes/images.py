"""``/v1/images``: upload, search, send, change, delete and restore pictures; many at once as a zip."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Annotated, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse

from chashka.app.guard.access import Who
from chashka.app.jobs import Picture
from chashka.app.routes.asking import needs
from chashka.app.routes.errors import BODY, documented
from chashka.app.routes.examples import example
from chashka.app.routes.shapes import (
    Download,
    Format,
    LineageShape,
    LinkShape,
    MetadataShape,
    PictureChange,
    PictureList,
    PictureShape,
    Privacy,
    metadata_shape,
    picture_shape,
)
from chashka.app.service import NotFoundError, Service
from chashka.images import slug

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/svg+xml": ".svg"}
_CHUNK = 1 << 18
_IN_MEMORY = 8_000_000
_TEXT = r"^[^\x00]*$"
_FILE = {
    "description": "The file.",
    "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in SUFFIXES},
}
_ZIP = {"description": "A zip.", "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}


def router(service: Service) -> APIRouter:
    """The routes of pictures."""
    routes = APIRouter(prefix="/v1/images", tags=["pictures"])
    _looking(routes, service)
    _changing(routes, service)
    _searching(routes, service)
    reads, makes = Depends(needs(service, "read")), Depends(needs(service, "generate"))

    @routes.post(
        "",
        status_code=201,
        summary="Upload a picture",
        responses=documented(429, 507, *BODY),
        openapi_extra=example("upload"),
    )
    def upload_image(
        response: Response,
        file: UploadFile,
        who: Who = makes,
        consent: Annotated[bool, Form(description="the people in it agree; a shared server asks for that")] = False,
        source: Annotated[
            Literal["uploaded", "imported"], Form(description="imported: another program made it")
        ] = "uploaded",
    ) -> PictureShape:
        """Keep a PNG, JPEG or WebP file as it is; what it says about itself is read, whichever program wrote it."""
        picture = service.upload(who, file.file.read(), consent=consent, source=source)
        response.headers["Location"] = f"/v1/images/{picture.id}"
        return picture_shape(picture)

    @routes.post(
        "/download",
        summary="Download many",
        response_class=StreamingResponse,
        responses={200: _ZIP, **documented(404, *BODY)},
        openapi_extra=example("download"),
    )
    def download_images(said: Download, who: Who = reads) -> StreamingResponse:
        """A zip of pictures, each as its own file."""
        chosen = [_there(service.picture(who, id)) for id in dict.fromkeys(said.ids)]
        packed = _packed(service, who, chosen, said)
        headers = {"Content-Disposition": 'attachment; filename="chashka.zip"'}
        return StreamingResponse(_chunks(packed), media_type="application/zip", headers=headers)

    return routes


def _searching(routes: APIRouter, service: Service) -> None:
    """Which pictures there are."""
    reads = Depends(needs(service, "read"))

    @routes.get("", summary="Search pictures", responses=documented(422), openapi_extra=example("pictures"))
    def search_images(
        who: Who = reads,
        words: Annotated[str, Query(max_length=500, pattern=_TEXT, description="all of them, in any language")] = "",
        model: Annotated[str | None, Query(max_length=120, pattern=_TEXT)] = None,
        since: Annotated[float | None, Query(ge=0, le=1e12, allow_inf_nan=False)] = None,
        until: Annotated[float | None, Query(ge=0, le=1e12, allow_inf_nan=False)] = None,
        favourite: Annotated[bool | None, Query(description="only favourites, or only others")] = None,
        collection: Annotated[str | None, Query(max_length=40, pattern=_TEXT, description="only those in it")] = None,
        deleted: Annotated[bool, Query(description="those that can be restored instead")] = False,
        before: Annotated[int | None, Query(ge=0, le=2**62, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> PictureList:
        """One's own pictures, newest first; with the scope admin everybody's."""
        found = service.store.pictures.search(
            words,
            model=model,
            since=since,
            until=until,
            favourite=favourite,
            collection=collection,
            owner=None if who.may("admin") else who.id,
            deleted=deleted,
            before=before,
            limit=limit,
        )
        more = found[-1].number if len(found) == limit else None
        return PictureList(data=[picture_shape(picture) for picture in found], next=more)


def _looking(routes: APIRouter, service: Service) -> None:
    """What one picture is."""
    reads = Depends(needs(service, "read"))

    @routes.get(
        "/{id}",
        summary="Get a picture's file",
        response_class=Response,
        responses={200: _FILE, 304: {"description": "Not modified."}, **documented(404, 422)},
        openapi_extra=example("picture"),
    )
    def get_image(
        request: Request,
        id: str,
        who: Who = reads,
        privacy: Annotated[Privacy | None, Query(description="what it says about itself")] = None,
        format: Annotated[Format | None, Query(description="another format than its own")] = None,
    ) -> Response:
        """The file's own bytes; with `privacy` or `format` as they ask."""
        picture = _there(service.picture(who, id))
        tag = f'"{picture.new.sha256[:32]}.{privacy or service.settings.privacy}.{format or ""}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=0, must-revalidate", "Vary": "Authorization, Cookie"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        data, media_type = service.file(who, picture, privacy=privacy, format=format)
        # SVG may hold scripts: it is never shown by its address
        how = "attachment" if media_type == "image/svg+xml" else "inline"
        headers["Content-Disposition"] = f'{how}; filename="{picture.id}{SUFFIXES[media_type]}"'
        return Response(data, media_type=media_type, headers=headers)

    @routes.get(
        "/{id}/thumbnail",
        summary="Get a small picture",
        response_class=Response,
        responses={200: {"description": "The file.", "content": {"image/webp": {}}}, **documented(404, 422)},
        openapi_extra=example("thumbnail"),
    )
    def get_thumbnail(id: str, who: Who = reads) -> Response:
        """A WebP of at most 256 pixels a side."""
        picture = service.picture(who, id)
        headers = {"Cache-Control": "private, max-age=86400, immutable", "Vary": "Authorization, Cookie"}
        return Response(service.thumbnail(who, picture), media_type="image/webp", headers=headers)

    @routes.get(
        "/{id}/metadata", summary="Get metadata", responses=documented(404, 422), openapi_extra=example("metadata")
    )
    def get_metadata(id: str, who: Who = reads) -> MetadataShape:
        """Everything that is known of a picture."""
        return metadata_shape(service.picture(who, id))

    @routes.get(
        "/{id}/lineage", summary="Get the lineage", responses=documented(404, 422), openapi_extra=example("lineage")
    )
    def get_lineage(id: str, who: Who = reads) -> LineageShape:
        """Which pictures it was made from, and which were made from it."""
        found = service.store.pictures.lineage(service.picture(who, id).id)
        links = [LinkShape(child=link.child, parent=link.parent, use=link.use) for link in found.links]
        return LineageShape(id=id, ancestors=list(found.ancestors), descendants=list(found.descendants), links=links)


def _changing(routes: APIRouter, service: Service) -> None:
    """What is done with one picture."""
    makes = Depends(needs(service, "generate"))

    @routes.patch(
        "/{id}", summary="Change a picture", responses=documented(404, *BODY), openapi_extra=example("change")
    )
    def change_image(id: str, said: PictureChange, who: Who = makes) -> PictureShape:
        """Mark it as a favourite, put it into collections, take it out of some."""
        picture = service.picture(who, id)
        collections = service.collections
        for wanted in (*said.collect, *said.uncollect):
            owned = collections.get(wanted)
            if owned is None or not who.sees(owned.owner):
                raise NotFoundError("there is no such collection")
        if said.favourite is not None:
            picture = service.store.pictures.favourite(id, said.favourite) or picture
        for wanted in said.collect:
            collections.put(wanted, [id])
        for wanted in said.uncollect:
            collections.take_out(wanted, [id])
        return picture_shape(picture)

    @routes.delete(
        "/{id}", summary="Delete a picture", responses=documented(404, *BODY), openapi_extra=example("delete")
    )
    def delete_image(id: str, who: Who = makes) -> PictureShape:
        """It is in no list any more, and gone for good after the server's `retention`; until then it can be restored."""
        picture = service.picture(who, id)
        return picture_shape(service.store.pictures.delete(id) or picture)

    @routes.post(
        "/{id}/restore", summary="Restore a picture", responses=documented(404, *BODY), openapi_extra=example("restore")
    )
    def restore_image(id: str, who: Who = makes) -> PictureShape:
        """Undo a deletion."""
        picture = service.picture(who, id)
        return picture_shape(service.store.pictures.restore(id) or picture)


def _there(picture: Picture) -> Picture:
    """The picture unless it was deleted."""
    if picture.deleted is not None:
        raise NotFoundError("there is no such picture; it was deleted and can be restored")
    return picture


def _packed(service: Service, who: Who, chosen: list[Picture], said: Download) -> IO[bytes]:
    """A zip of the files, not compressed again; named by what was drawn."""
    packed: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (closed when it was sent)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for picture in chosen:
            data, media_type = service.file(who, picture, privacy=said.privacy, format=said.format)
            name = f"{slug(picture.new.prompt) if said.privacy in (None, 'full') else 'picture'}-{picture.id[4:]}"
            archive.writestr(name + SUFFIXES[media_type], data)
    packed.seek(0)
    return packed


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
