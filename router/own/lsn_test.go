package own

import (
	"testing"

	"howdah/consul/schema"
)

func TestEndOfWAL(t *testing.T) {
	const page = 8192
	for name, c := range map[string]struct{ insert, flush, want uint64 }{
		"all flushed":                              {5*page + 200, 5*page + 200, 5*page + 200},
		"a record is not flushed":                  {5*page + 200, 5*page + 100, 5*page + 200},
		"the page is full":                         {5*page + 24, 5 * page, 5 * page},
		"the segment is full":                      {5*page + 40, 5 * page, 5 * page},
		"the shortest record on the next page":     {5*page + 48, 5 * page, 5*page + 48},
		"the page is full and not flushed":         {5*page + 24, 5*page - 8, 5*page + 24},
		"flushed further since":                    {5*page + 24, 5*page + 100, 5*page + 24},
		"a short record that is not at a page end": {5*page + 224, 5*page + 200, 5*page + 224},
	} {
		if got := end(c.insert, c.flush, page); got != schema.LSN(c.want) {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
