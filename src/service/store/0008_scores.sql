-- The highest score of a window, so that a day of it can be drawn without reading a day of results. Executions of earlier
-- builds have none.
ALTER TABLE execution ADD COLUMN score REAL;
