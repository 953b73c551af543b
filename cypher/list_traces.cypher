// name: list_traces
// question: Which traces are in the store, newest first?
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param dataset: string? -- only traces that an Item of this data set asked for
// param split: string? -- only traces that an Item of this split asked for
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only traces with an Output whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only traces with an Output whose token stands in the text and came from here
// param older_than: int? -- only what comes after a row made at this time in the order of the rows, for paging that new traces do not shift
// param after_id: string = - -- with `older_than`: of those made at the very same time, only ids after this one
// param offset: int(0..) = 0 -- rows to leave out first, for paging
// param k: int(1..) = 20 -- rows at most
// without min_share: this lists traces, not what drives their predictions
// without sink: this lists traces, not what drives their predictions
// column trace_id: string -- the trace
// column model_id: string -- its model
// column method: string -- attribution method
// column created_at: int -- milliseconds since 1970-01-01 UTC
// column n_tokens: int -- tokens
// column n_prompt_tokens: int -- of them in the prompt
// column outputs: int -- explained predictions
// column closure: float -- largest relative closure error of its predictions
// column items: int -- input lines that asked for it
// column item_id: string? -- one of them (the first in alphabetical order)
// column text: string? -- its text; null where text was not kept
// order: -created_at, trace_id
// rows: k
// seeks: nothing; scans Trace, then reads the listed ones only
// merge: concatenate (ask each store for offset + k rows, then skip)
MATCH (tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND tr.created_at >= $since                                                  // when $since
  AND (tr.created_at < $older_than OR (tr.created_at = $older_than AND tr.trace_id > $after_id)) // when $older_than
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
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
WITH tr ORDER BY tr.created_at DESC, tr.trace_id SKIP $offset LIMIT $k
OPTIONAL MATCH (o:Output)-[:OF]->(tr)
WITH tr, count(o) AS outputs
OPTIONAL MATCH (y:Item)-[:OF]->(tr)
RETURN tr.trace_id AS trace_id, tr.model_id AS model_id, tr.method AS method, tr.created_at AS created_at, tr.n_tokens AS n_tokens,
       tr.n_prompt_tokens AS n_prompt_tokens, outputs, tr.closure AS closure, count(y) AS items, min(y.item_id) AS item_id, tr.text AS text
ORDER BY created_at DESC, trace_id
