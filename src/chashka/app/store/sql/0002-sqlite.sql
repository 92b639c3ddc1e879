CREATE INDEX jobs_waiting ON jobs (state, owner, place, id);
