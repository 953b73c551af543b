// name: list_outputs
// question: Which predictions were explained, in this trace or in all?
// param trace_id: string? -- only this trace
// param token_id: int? -- only predictions of this vocabulary id
// param text: string? -- only predictions of this text, leading space included
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param dataset: string? -- only traces that an Item of this data set asked for
// param split: string? -- only traces that an Item of this split asked for
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only Outputs whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only Outputs whose token stands in the text and came from here
// param offset: int(0..) = 0 -- rows to leave out first, for paging
// param k: int(1..) = 100 -- rows at most
// without min_share: this lists predictions, not what drives them
// without sink: this lists predictions, not what drives them
// column trace_id: string -- the trace
// column output_id: string -- the prediction: what `drivers` takes
// column output_uid: int -- its key in this store
// column pos: int -- position whose logits were read
// column token_id: int -- the predicted token
// column text: string? -- its text; null where text was not kept
// column foil_text: string? -- what it was explained against
// column gauge: string -- what is explained: centred, foil or raw
// column logit: float -- the model's logit, logits
// column explained: float -- the quantity decomposed, logits
// column prob: float -- its probability
// column vocab_rank: int -- 1 is the most probable token
// column correct: bool? -- is it the start of what was expected
// column closure: float -- relative closure error
// column bias: float -- sum of all bias contributions, logits
// column sink_mass: float -- share of `direct` on the sink, 0 to 1
// column attention_kept: float -- share of attention-edge mass that was kept, 0 to 1
// column mechanism: bool -- are its State, Head and Mlp nodes in this store
// order: trace_id, pos, output_id
// rows: k
// seeks: Trace.trace_id, Output.token_id or Output.text; without them scans Output
// merge: concatenate (ask each store for offset + k rows, then skip)
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND tr.trace_id = $trace_id                                                  // when $trace_id
  AND o.token_id = $token_id                                                   // when $token_id
  AND o.text = $text                                                           // when $text
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
  AND tr.created_at >= $since                                                  // when $since
  AND tr.created_at < $until                                                   // when $until
  AND o.correct = $correct                                                     // when $correct
  AND EXISTS { MATCH (o)-[:EMITS]->(e:Token) WHERE e.origin = $origin }        // when $origin
  AND EXISTS { MATCH (x:Item)-[:OF]->(tr) WHERE x.item_id IS NOT NULL          // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
RETURN tr.trace_id AS trace_id, o.output_id AS output_id, o.uid AS output_uid, o.pos AS pos, o.token_id AS token_id, o.text AS text,
       o.foil_text AS foil_text, o.gauge AS gauge, o.logit AS logit, o.explained AS explained, o.prob AS prob,
       o.vocab_rank AS vocab_rank, o.correct AS correct, o.closure AS closure, o.bias AS bias, o.sink_mass AS sink_mass,
       o.attention_kept AS attention_kept, o.mechanism AS mechanism
ORDER BY trace_id, pos, output_id SKIP $offset LIMIT $k
