package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
)

// schemas are the OpenAPI definitions of Kubernetes, of the version that hack/tools/kubelet pins, as the
// API server publishes them.
type schemas struct{ definitions spec.Definitions }

func loadSchemas(t *testing.T) *schemas {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes")
	cmd.Dir = filepath.Join("..", "..", "hack", "tools", "kubelet")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("find the module k8s.io/kubernetes: %v", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(module.Dir, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var swagger spec.Swagger
	if err := json.Unmarshal(data, &swagger); err != nil {
		t.Fatal(err)
	}
	for name, schema := range swagger.Definitions {
		// The published definitions let unknown fields pass; kubectl's strict validation does not.
		if len(schema.Properties) > 0 && schema.AdditionalProperties == nil {
			schema.AdditionalProperties = &spec.SchemaOrBool{Allows: false}
			swagger.Definitions[name] = schema
		}
	}
	s := &schemas{swagger.Definitions}
	return s
}

// of returns the definition of a kind, with all that it refers to put in.
func (s *schemas) of(apiVersion, kind string) (*spec.Schema, error) {
	group, version, found := strings.Cut(apiVersion, "/")
	if !found {
		group, version = "", apiVersion
	}
	for name, schema := range s.definitions {
		list, _ := schema.Extensions["x-kubernetes-group-version-kind"].([]any)
		for _, item := range list {
			gvk, _ := item.(map[string]any)
			if gvk["group"] == group && gvk["version"] == version && gvk["kind"] == kind && len(list) == 1 {
				whole := s.expand(s.definitions[name], 0)
				return &whole, nil
			}
		}
	}
	return nil, fmt.Errorf("Kubernetes has no kind %s of %s", kind, apiVersion)
}

// expand replaces references; the only recursive definitions are those of CRDs, which nothing here has.
func (s *schemas) expand(schema spec.Schema, depth int) spec.Schema {
	if depth > 40 {
		return schema
	}
	if ref := schema.Ref.String(); ref != "" {
		return s.expand(s.definitions[strings.TrimPrefix(ref, "#/definitions/")], depth+1)
	}
	if schema.Format == "int-or-string" { // a form that OpenAPI does not have
		schema.Type, schema.Format = spec.StringOrArray{"integer", "string"}, ""
	}
	properties := map[string]spec.Schema{}
	for name, p := range schema.Properties {
		properties[name] = s.expand(p, depth+1)
	}
	if len(properties) > 0 {
		schema.Properties = properties
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		item := s.expand(*schema.Items.Schema, depth+1)
		schema.Items = &spec.SchemaOrArray{Schema: &item}
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		value := s.expand(*schema.AdditionalProperties.Schema, depth+1)
		schema.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: &value}
	}
	return schema
}

// check holds an object against the schema of its kind.
func (s *schemas) check(o object) error {
	schema, err := s.of(o.str("apiVersion"), o.str("kind"))
	if err != nil {
		return err
	}
	result := validate.NewSchemaValidator(schema, nil, o.id(), strfmt.Default).Validate(map[string]any(o))
	return result.AsError()
}
