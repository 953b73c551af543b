// name: search_text
// question: Which traces hold this text?
// param text: string -- what to look for, anywhere in the trace's text
// param ignore_case: bool = true -- take upper and lower case as equal
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param dataset: string? -- only traces that an Item of this data set asked for
// param split: string? -- only traces that an Item of this split asked for
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only traces with an Output whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only traces with an Output whose token stands in the text and came from here
// param offset: int(0..) = 0 -- rows to leave out first, for paging
// param k: int(1..) = 20 -- rows at most
// without min_share: this lists traces, not what drives their predictions
// without sink: this lists traces, not what drives their predictions
// column trace_id: string -- the trace
// column model_id: string -- its model
// column created_at: int -- milliseconds since 1970-01-01 UTC
// column n_tokens: int -- tokens
// column text: string -- its whole text
// order: -created_at, trace_id
// rows: k
// seeks: nothing; scans the text of every trace. Traces made without keeping text are not found
// merge: concatenate (ask each store for offset + k rows, then skip)
MATCH (tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND (tr.text CONTAINS $text OR ($ignore_case AND toLower(tr.text) CONTAINS toLower($text)))
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
  AND tr.created_at >= $since                                                  // when $since
  AND tr.created_at < $until                                                   // when $until
  AND EXISTS { MATCH (c:Output)-[:OF]->(tr) WHERE c.uid IS NOT NULL            // when $correct or $origin
      AND c.correct = $correct                                                 // when $correct
      AND EXISTS { MATCH (c)-[:EMITS]->(e:Token) WHERE e.origin = $origin }    // when $origin
  }                                                                            // when $correct or $origin
  AND EXISTS { MATCH (x:Item)-[:OF]->(tr) WHERE x.item_id IS NOT NULL          // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
RETURN tr.trace_id AS trace_id, tr.model_id AS model_id, tr.created_at AS created_at, tr.n_tokens AS n_tokens, tr.text AS text
ORDER BY created_at DESC, trace_id SKIP $offset LIMIT $k
