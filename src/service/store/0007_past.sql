-- A list of one status costs its page, however many executions of another there are.
CREATE INDEX execution_status ON execution (scheduler_uuid, status, boundary_us);
