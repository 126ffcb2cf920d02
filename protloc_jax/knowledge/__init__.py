"""What is known of genes, compounds and cell lines before any image: graphs of perturbations, vectors of lines."""
