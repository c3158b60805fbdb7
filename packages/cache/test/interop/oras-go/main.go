// Does to a cache what the oras command does, through the same library, for the interop tests:
//
//	oras-go-interop copy FROM TO     as `oras cp -r`; each is oci:DIR:TAG or HOST/REPOSITORY:TAG over plain HTTP
//	oras-go-interop gc DIR           the library's garbage collection of an OCI image layout
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx := context.Background()
	switch {
	case len(args) == 3 && args[0] == "copy":
		from, fromTag, err := open(ctx, args[1])
		if err != nil {
			return err
		}
		to, toTag, err := open(ctx, args[2])
		if err != nil {
			return err
		}
		_, err = oras.ExtendedCopy(ctx, from, fromTag, to, toTag, oras.DefaultExtendedCopyOptions)
		return err
	case len(args) == 2 && args[0] == "gc":
		store, err := oci.NewWithContext(ctx, args[1])
		if err != nil {
			return err
		}
		return store.GC(ctx)
	}
	return fmt.Errorf("usage: oras-go-interop copy FROM TO | gc DIR")
}

func open(ctx context.Context, name string) (oras.GraphTarget, string, error) {
	if path, ok := strings.CutPrefix(name, "oci:"); ok {
		dir, tag, found := strings.Cut(path, ":")
		if !found {
			return nil, "", fmt.Errorf("%s names no tag", name)
		}
		store, err := oci.NewWithContext(ctx, dir)
		return store, tag, err
	}
	repository, err := remote.NewRepository(name)
	if err != nil {
		return nil, "", err
	}
	repository.PlainHTTP = true
	return repository, repository.Reference.Reference, nil
}
