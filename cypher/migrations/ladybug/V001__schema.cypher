// Made from schema.py (schema version 3). Applied once; never edited afterwards.

CREATE NODE TABLE IF NOT EXISTS Trace (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  trace_id STRING,
  ready_id STRING,
  model_id STRING,
  model_fingerprint STRING,
  checkpoint_step INT64,
  run_id STRING,
  prompt_hash STRING,
  text STRING,
  n_tokens INT64,
  n_prompt_tokens INT64,
  n_layers INT64,
  n_heads INT64,
  generation STRING,
  method STRING,
  keep FLOAT,
  max_edges INT64,
  dtype STRING,
  device STRING,
  versions STRING,
  created_at INT64,
  closure FLOAT,
  replay_gap FLOAT,
  status STRING
);

CREATE NODE TABLE IF NOT EXISTS Item (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  item_id STRING,
  dataset STRING,
  split STRING,
  variant STRING,
  tags STRING[],
  session_id STRING,
  turn INT64,
  expected STRING,
  rationale STRING,
  correct BOOL,
  otel_trace_id STRING,
  otel_span_id STRING
);

CREATE NODE TABLE IF NOT EXISTS Token (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  model_id STRING,
  pos INT64,
  token_id INT64,
  text STRING,
  char_from INT64,
  char_to INT64,
  origin STRING,
  sink BOOL
);

CREATE NODE TABLE IF NOT EXISTS Span (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  kind STRING,
  ref STRING,
  ordinal INT64,
  first_pos INT64,
  last_pos INT64,
  text STRING,
  explained FLOAT,
  bias FLOAT,
  own FLOAT,
  unassigned FLOAT
);

CREATE NODE TABLE IF NOT EXISTS Output (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_id STRING,
  model_id STRING,
  pos INT64,
  first_pos INT64,
  token_id INT64,
  text STRING,
  foil_token_id INT64,
  foil_text STRING,
  gauge STRING,
  logit FLOAT,
  explained FLOAT,
  logit_std FLOAT,
  prob FLOAT,
  vocab_rank INT64,
  correct BOOL,
  closure FLOAT,
  bias FLOAT,
  sink_mass FLOAT,
  attention_kept FLOAT,
  mlp_share FLOAT,
  head_vector FLOAT[],
  compositions_rest FLOAT,
  compositions_rest_abs FLOAT,
  path_mass_finished FLOAT,
  path_mass_open FLOAT,
  path_largest_open FLOAT,
  mechanism BOOL
);

CREATE NODE TABLE IF NOT EXISTS HeadSummary (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_uid INT64,
  model_id STRING,
  layer INT64,
  head INT64,
  relevance FLOAT,
  abs_relevance FLOAT,
  share FLOAT,
  top_source_pos INT64,
  top_query_pos INT64,
  offset INT64,
  induction BOOL
);

CREATE NODE TABLE IF NOT EXISTS Composition (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_uid INT64,
  model_id STRING,
  src STRING,
  dst STRING,
  via STRING,
  weight FLOAT
);

CREATE NODE TABLE IF NOT EXISTS Path (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_uid INT64,
  model_id STRING,
  motif STRING,
  hops STRING[],
  source_pos INT64,
  weight FLOAT,
  share FLOAT,
  rank INT64
);

CREATE NODE TABLE IF NOT EXISTS State (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_uid INT64,
  layer INT64,
  pos INT64,
  site STRING,
  relevance FLOAT,
  bias FLOAT,
  dropped_in FLOAT,
  dropped_out FLOAT,
  dropped_in_abs FLOAT,
  dropped_out_abs FLOAT
);

CREATE NODE TABLE IF NOT EXISTS Head (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_uid INT64,
  layer INT64,
  head INT64,
  pos INT64,
  relevance FLOAT,
  bias FLOAT,
  dropped_in FLOAT,
  dropped_out FLOAT,
  dropped_in_abs FLOAT,
  dropped_out_abs FLOAT
);

CREATE NODE TABLE IF NOT EXISTS Mlp (
  uid INT64 PRIMARY KEY,
  trace_no INT64,
  output_uid INT64,
  layer INT64,
  pos INT64,
  relevance FLOAT,
  bias FLOAT,
  dropped_in FLOAT,
  dropped_out FLOAT,
  dropped_in_abs FLOAT,
  dropped_out_abs FLOAT
);

CREATE REL TABLE IF NOT EXISTS INFLUENCES (
  FROM Token TO Output,
  FROM Span TO Output,
  score FLOAT,
  direct_value FLOAT,
  direct_address FLOAT,
  total_value FLOAT,
  total_address FLOAT,
  direct FLOAT,
  total FLOAT,
  removal FLOAT,
  drive FLOAT,
  rank_drive INT64,
  rank_direct INT64,
  rank_total INT64,
  share FLOAT
);

CREATE REL TABLE IF NOT EXISTS KNOCKOUT (
  FROM Token TO Output,
  FROM Span TO Output,
  FROM HeadSummary TO Output,
  FROM Path TO Output,
  kind STRING,
  layer INT64,
  head INT64,
  query_pos INT64,
  estimate FLOAT,
  effect FLOAT,
  effect_logp FLOAT,
  created_at INT64
);

CREATE REL TABLE IF NOT EXISTS SUPPORTS (
  FROM Span TO Span,
  score FLOAT,
  direct FLOAT,
  total FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS EMITS (
  FROM Output TO Token
);

CREATE REL TABLE IF NOT EXISTS EMBEDS (
  FROM Token TO State,
  weight FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS VALUE (
  FROM State TO Head,
  weight FLOAT,
  rank INT64,
  attention FLOAT,
  sensitivity FLOAT
);

CREATE REL TABLE IF NOT EXISTS KEY (
  FROM State TO Head,
  weight FLOAT,
  rank INT64,
  sensitivity FLOAT
);

CREATE REL TABLE IF NOT EXISTS QUERY (
  FROM State TO Head,
  weight FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS WRITES (
  FROM Head TO State,
  FROM Mlp TO State,
  weight FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS READS (
  FROM State TO Mlp,
  weight FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS RESIDUAL (
  FROM State TO State,
  weight FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS UNEMBEDS (
  FROM State TO Output,
  weight FLOAT,
  rank INT64
);

CREATE REL TABLE IF NOT EXISTS OF (
  FROM Item TO Trace,
  FROM Token TO Trace,
  FROM Span TO Trace,
  FROM Output TO Trace,
  FROM HeadSummary TO Output,
  FROM Composition TO Output,
  FROM Path TO Output
);

CREATE NODE TABLE IF NOT EXISTS StoreMigration (version INT64 PRIMARY KEY, name STRING, checksum STRING, applied_at INT64);

CREATE NODE TABLE IF NOT EXISTS StoreCounter (name STRING PRIMARY KEY, value INT64);

CREATE NODE TABLE IF NOT EXISTS StoreTrace (trace_id STRING PRIMARY KEY, trace_no INT64, status STRING, row_counts STRING);

CREATE NODE TABLE IF NOT EXISTS StoreWork (id INT64 PRIMARY KEY, kind STRING, first_no INT64, last_no INT64, output_uid INT64);
