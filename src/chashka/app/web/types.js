/**
 * The shapes that the server sends and takes (docs/server.md). Types alone: nothing of this file runs.
 *
 * @typedef {object} JobPicture
 * @property {string} id
 * @property {number} index number of the picture within its job
 * @property {string} url
 * @property {string} thumbnail
 * @property {number} width pixels
 * @property {number} height pixels
 * @property {number | null} [seed]
 *
 * @typedef {object} Problem
 * @property {string} code
 * @property {string} message
 *
 * @typedef {"queued" | "running" | "done" | "failed" | "canceled"} State
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {string} kind
 * @property {State} state
 * @property {string} model
 * @property {Record<string, any>} fields
 * @property {Record<string, string>} [parents]
 * @property {{done: number, total: number}} progress steps
 * @property {number | null} position in the queue, from 1; 0 or null: not waiting
 * @property {JobPicture[]} pictures
 * @property {Problem | null} problem
 * @property {string[]} notes
 * @property {number} created seconds since 1970
 *
 * @typedef {object} Picture
 * @property {string} id
 * @property {string | null} job
 * @property {number} width
 * @property {number} height
 * @property {string} media_type
 * @property {string} prompt
 * @property {string} [negative_prompt]
 * @property {string} model
 * @property {string} [family]
 * @property {number | null} seed
 * @property {number} created seconds since 1970
 * @property {boolean} favourite
 * @property {number} [index]
 * @property {string} source "drawn", "uploaded" or "imported"
 *
 * @typedef {object} Model
 * @property {string} id
 * @property {string} [family]
 * @property {boolean} [available]
 * @property {number} [area] pixels of the pictures it draws
 * @property {boolean} [default] whether it is used where a request names none
 *
 * @typedef {object} SchemaField
 * @property {string} [type]
 * @property {any} [default]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [ge]
 * @property {number} [le]
 * @property {string[]} [enum]
 * @property {SchemaField[]} [anyOf]
 *
 * @typedef {object} Schema
 * @property {Record<string, SchemaField>} properties
 */

export {};
