package main

// nearest returns the candidate that takes the fewest edits to reach from
// word, if these are few enough to think of a slip.
func nearest(word string, candidates []string) (string, bool) {
	best, bestEdits := "", max(2, len(word)/4)+1
	for _, c := range candidates {
		if e := edits(word, c); e < bestEdits || e == bestEdits && best != "" && c < best {
			best, bestEdits = c, e
		}
	}
	return best, best != ""
}

// edits is the Levenshtein distance of a and b: how many bytes to insert,
// delete or replace to make one the other.
func edits(a, b string) int {
	row := make([]int, len(b)+1) // row[j]: distance of a[:i] and b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
