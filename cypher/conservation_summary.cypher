// name: conservation_summary
// question: How many stored States, Heads and Mlps conserve what flows through them?
// param trace_id: string? -- only this trace
// param output_id: string? -- only this prediction
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
// param tolerance: float(0..) = 0.0001 -- largest error that passes, relative to max(|explained|, logit_std)
// without min_share: conservation is of every stored node
// without sink: conservation is of every stored node
// column node: string -- State, Head or Mlp
// column outputs: int -- predictions whose mechanism was looked at
// column checked: int -- nodes looked at
// column offenders: int -- of them, those above the tolerance
// column error_max: float -- the largest error, relative
// column error_mean: float -- the mean error, relative
// order: node
// rows: 3
// seeks: Trace.trace_id or Output.output_id; without them scans the whole mechanism level
// merge: group node; sum outputs, checked, offenders; max error_max; mean error_mean by checked
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL AND o.mechanism
  AND tr.trace_id = $trace_id                                                  // when $trace_id
  AND o.output_id = $output_id                                                 // when $output_id
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
MATCH (n:State|Head|Mlp)
WHERE n.output_uid = o.uid
OPTIONAL MATCH ()-[i:EMBEDS|VALUE|KEY|QUERY|READS|WRITES|RESIDUAL]->(n)
WITH o, n, coalesce(sum(i.weight), 0.0) AS weight_in
OPTIONAL MATCH (n)-[x:VALUE|KEY|QUERY|READS|WRITES|RESIDUAL|UNEMBEDS]->()
WITH o, n, weight_in, coalesce(sum(x.weight), 0.0) AS weight_out
WITH o, n, weight_in, weight_out, abs(weight_in + n.bias + n.dropped_in - n.relevance) AS gap_in,
     abs(weight_out + n.dropped_out - n.relevance) AS gap_out,
     CASE WHEN abs(o.explained) > o.logit_std THEN abs(o.explained) ELSE o.logit_std END AS scale
WITH o, n, weight_in, weight_out, gap_in, gap_out, (CASE WHEN gap_in > gap_out THEN gap_in ELSE gap_out END) / scale AS error
RETURN CASE WHEN n.site IS NOT NULL THEN 'State' WHEN n.head IS NOT NULL THEN 'Head' ELSE 'Mlp' END AS node,
       count(DISTINCT o.uid) AS outputs, count(*) AS checked, sum(CASE WHEN error > $tolerance THEN 1 ELSE 0 END) AS offenders,
       max(error) AS error_max, avg(error) AS error_mean
ORDER BY node
