// Writes the zTOC that SOCI itself makes of a layer, for comparison with ours.
//
//	soci-ztoc LAYER SPAN-SIZE gzip|uncompressed OUTPUT
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/awslabs/soci-snapshotter/ztoc"
)

func run(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("usage: soci-ztoc LAYER SPAN-SIZE gzip|uncompressed OUTPUT")
	}
	span, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	built, err := ztoc.NewBuilder("layercache").BuildZtoc(args[1], span, ztoc.WithCompression(args[3]))
	if err != nil {
		return err
	}
	reader, _, err := ztoc.Marshal(built)
	if err != nil {
		return err
	}
	bytes, err := io.ReadAll(reader)
	if err != nil {
		return err
	}
	return os.WriteFile(args[4], bytes, 0o644)
}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
